"""Devices: is it there, who has it, what is it, how fast is it. bench/device.py states the contract."""
