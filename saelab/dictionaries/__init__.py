"""The sparse autoencoder itself: affinity × allocation while it trains, an inference rule ever after."""
