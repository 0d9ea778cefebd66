"""Does this image run?"""
