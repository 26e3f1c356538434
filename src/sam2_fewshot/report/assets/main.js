// Main: start everything. Without scripts the summary, the frames' table and the settings still show.

document.body.classList.toggle('nothing', !total);
startChoice();
startViewer();
startGallery();
startMarks();
if (frames.length) show(0);
refresh();
fillGallery();
document.body.dataset.ready = 'yes';
