"""What a batch consists of: crops and flips, the filter, saliency maps, the teacher's answers."""
