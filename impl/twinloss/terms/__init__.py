"""Terms of the loss, each a function of predictions and an assignment (spec section 7)."""
