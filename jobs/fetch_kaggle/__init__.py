"""fetch-kaggle: brings Kaggle datasets to a folder and the lake, and enters them in the catalogue."""
