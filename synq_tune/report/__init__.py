"""What people look at: pictures, plots and pages."""
