"""Feature index → the folder that Neuronpedia's bulk import reads."""
