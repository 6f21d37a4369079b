"""Code that runs in the process of a release: imports numpy, torch, the release, and the modules of this package only."""
