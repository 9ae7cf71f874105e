from tiny_transformer.capstone.cli import main

main()
