"""The same training and evaluation written for other libraries, each as a good user of it would."""
