"""Land cover: images, relative depth maps and masks of classes, found, checked, read, augmented, and written."""
