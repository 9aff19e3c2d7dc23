"""One file of commands a subject. A command asks one verb and prints its answer."""
