"""Metrics that BasicSR does not have. Every module here registers with BasicSR; PSNR, SSIM and NIQE stay BasicSR's."""
