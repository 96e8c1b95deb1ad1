"""Land cover: classes from an image and a relative depth map, made to keep working in another domain."""
