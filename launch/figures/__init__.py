"""Drawings of architectures: graphs, their layout, pictures, text."""
