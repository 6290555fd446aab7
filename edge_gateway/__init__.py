"""Carries runs to browsers: one socket is one stream."""
