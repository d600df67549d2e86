"""What goes over the wire. Requests are strict: no field is guessed, none is overlooked."""
