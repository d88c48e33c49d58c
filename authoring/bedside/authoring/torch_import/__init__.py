"""A torch module as a layer list, held against torch itself. torch is imported inside functions, where it is used."""
