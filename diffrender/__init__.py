"""Differentiable rendering for PyTorch: any camera, any machine, checked gradients."""
