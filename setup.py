from setuptools import find_packages, setup

setup(
    name="iwae",
    version="0.1.0",
    description="Variational and importance weighted autoencoders in TensorFlow 2 and Keras",
    packages=find_packages(include=["iwae", "iwae.*"]),
    package_data={"iwae": ["py.typed"]},
    python_requires=">=3.10",
    install_requires=[
        "tensorflow>=2.18",
        "tensorflow-probability[tf]>=0.25",
        "keras>=3.5",
        "numpy>=1.26",
        "progressbar2>=4.4",
        "matplotlib>=3.9",
        "pillow>=10",  # a user's images
        "requests>=2.31",  # downloads
        "urllib3>=2.2",
        "platformdirs>=4.0",  # the cache folder
        "scipy>=1.13",  # chardata.mat
        "pandas>=2.2.1",  # the report's tables
        # Pareto k-hat of importance weights; for Python 3.10 there is the larger package only
        "arviz-stats>=0.5; python_version >= '3.11'",
        "arviz>=0.18,<1; python_version < '3.11'",
        "scikit-learn>=1.5",  # the digits dataset
        "tensorboard>=2.18",  # TensorFlow writes TensorBoard scalars only where it is installed
    ],
    extras_require={
        "gpu": ["tensorflow[and-cuda]"],
        "ray": ["ray"],  # --cluster
        "benchmarks": ["jax", "torch"],  # the peers that benchmarks/ compares with
        "docs": ["mkdocs", "mkdocstrings[python]", "ruff"],  # ruff sets signatures in lines
        "test": ["pytest", "pytest-xdist", "hypothesis", "ruff", "mypy", "pandas-stubs", "import-linter"],
    },
    entry_points={"console_scripts": ["datasets_download = iwae.data.download:main"]},
)
