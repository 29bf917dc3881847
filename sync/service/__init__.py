"""The service: joins the directory and Redis, and says when what is done."""
