"""Synthesis of the pocket suite: small labelled, captioned data sets made on first use from nothing but this code."""
