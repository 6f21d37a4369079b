"""What several rooms need and no rule of the loss concerns: programs that are waited for, progress, files that appear whole, parsing."""
