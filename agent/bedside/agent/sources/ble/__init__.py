"""Bluetooth sensors by GATT, through BlueZ."""
