"""Is this file a complete amphora?"""
