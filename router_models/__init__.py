"""The difficulty router: features, trained artifact, calibration; numpy alone at serving time."""
