"""The differential run: did every contender compute what the definition says, stage by stage, and how close was it?"""
