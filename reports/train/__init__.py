"""The training run: does a training change when the twin takes the reference's place?"""
