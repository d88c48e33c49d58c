"""CSV files, played or followed while another program appends to them."""
