// Browsers load no modules from file://, so that this much is said by a plain script.
if (location.protocol === "file:") {
  const message = document.getElementById("message");
  message.textContent =
    "Opened as a file, this page cannot load its network. Serve its folder: " +
    "igcv web FOLDER --serve 8000, or any other web server.";
  message.hidden = false;
  document.getElementById("status").textContent = "Not started.";
}
