"""``nox -s gpu``: the checks and measurements that need a GPU. Without a GPU the rows list what was not measured."""
