"""``nox -s gpu``: everything that only a GPU can show, each check by itself, with its limit; without a GPU, a sentence that says so."""
