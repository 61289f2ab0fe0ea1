// The camera: frames one after the other, each when the one before has been classified.

const REASONS = {
  NotAllowedError: "The camera was not allowed. Allow it in the browser's settings for this page, then try again.",
  NotFoundError: "No camera was found.",
  NotReadableError: "The camera is in use by another program.",
};

/**
 * Show the camera in `video` and hand its frames to `classify`, one at a time, until `stop` of the result is called.
 *
 * @param ended is called when the camera goes away by itself.
 * @throws Error whose message is for the visitor.
 */
export async function startCamera(video, classify, ended) {
  const stream = await allowed();
  video.srcObject = stream;
  await video.play();
  let running = true;
  stream.getVideoTracks()[0].addEventListener("ended", ended);
  const frames = async () => {
    while (running) {
      await classify(await createImageBitmap(video));
      await new Promise(requestAnimationFrame); // leaves the page time to draw
    }
  };
  frames().catch(ended);
  return {
    stop() {
      running = false;
      stream.getTracks().forEach((track) => track.stop());
      video.srcObject = null;
    },
  };
}

async function allowed() {
  // Browsers give the camera to pages from https and from this machine only.
  if (!navigator.mediaDevices) throw new Error("This page may not use a camera: open it over https.");
  try {
    return await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch (error) {
    throw new Error(REASONS[error.name] ?? `The camera cannot be used (${error.message}).`);
  }
}
