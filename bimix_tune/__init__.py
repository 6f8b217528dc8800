"""Find the data mixture for pretraining a language model."""
