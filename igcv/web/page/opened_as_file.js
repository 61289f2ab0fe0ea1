// Browsers load no modules from file://, so a plain script shows this message.
if (location.protocol === "file:") {
  const message = document.getElementById("message");
  message.textContent =
    "This page cannot load its network from a file. Serve its folder with " +
    "igcv web FOLDER --serve 8000, or with any other web server.";
  message.hidden = false;
  document.getElementById("status").textContent = "Not started.";
}
