"""What tests are made of: peers on the wire, servers, objects, stages. No test module imports another; they import these."""
