"""What is measured: this project's models and their peers, at published or toy sizes."""
