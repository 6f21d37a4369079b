"""Tests of the terms by themselves."""
