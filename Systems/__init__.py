"""Systems, each of which puts networks and tools together: a folder for each, which knows no other system.

The files beside the folders know all systems: ``models`` opens a trained model of any system, and ``audit`` checks a
dataset for any.
"""
