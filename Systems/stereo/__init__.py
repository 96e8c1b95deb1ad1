"""Multi-view stereo: depth or height maps and surface models from several images; CasMVSNet, UCSNet and CasRED."""
