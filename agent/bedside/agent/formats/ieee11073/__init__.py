"""ISO/IEEE 11073-20601: APDUs of personal health devices, and the numbers in them."""
