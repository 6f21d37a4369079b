"""What runs in a release's own process: imports numpy, torch and the release, and nothing of the suite besides its neighbours here."""
