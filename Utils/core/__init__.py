"""What everything stands on: errors, files, seeds, processes, stopping, device, command line, tables."""
