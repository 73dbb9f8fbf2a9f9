FLASK_APP=guestbook:create_app()
