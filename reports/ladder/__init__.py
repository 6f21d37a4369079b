"""The release ladder: did the loss change between these two releases of the reference, since when, and how much?"""
