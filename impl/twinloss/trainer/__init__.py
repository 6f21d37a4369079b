"""The loss in place of a model's own criterion: how it is put there, what the own criterion computes, and whether both agree."""
