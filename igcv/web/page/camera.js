// Camera input: each frame is grabbed after the previous frame has been classified.

const REASONS = {
  NotAllowedError: "Camera access was denied. Allow it in the browser's settings for this page, then try again.",
  NotFoundError: "No camera found.",
  NotReadableError: "The camera is in use by another program.",
};

/**
 * Show the camera in `video` and pass its frames to `classify`, one at a time, until a call of `stop` of the result.
 *
 * @param ended callback when the camera stops by itself.
 * @throws Error with a message for the visitor.
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
      await new Promise(requestAnimationFrame); // lets the page draw
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
  // Browsers allow the camera only on pages from https and from this machine.
  if (!navigator.mediaDevices) throw new Error("The camera needs a secure connection. Open this page over https.");
  try {
    return await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch (error) {
    throw new Error(REASONS[error.name] ?? `The camera does not work (${error.message}).`);
  }
}
