"""Datasets: `catalogue` knows them, `download` fetches them, `loading` gives them as arrays."""
