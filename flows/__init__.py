"""The flows, which only put the tasks in order, and the command line that starts them."""
