"""The report of training runs: does a training change when the twin takes the reference's place?"""
