"""What a user's TensorRT and GPU are put to the test with."""
