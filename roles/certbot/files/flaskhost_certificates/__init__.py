"""flaskhost-certificates: issue, install and watch the certificates of this host's sites.

* :mod:`cli`: the command line;
* :mod:`prepare`, :mod:`apply`, :mod:`renew`, :mod:`deployed`, :mod:`check`: the verbs;
* :mod:`work`: a run over all certificates; its shared steps are in :mod:`order`, :mod:`activate` and :mod:`dropped`;
* :mod:`authority`, :mod:`records`, :mod:`lineages`: the CA, the DNS records, and certbot's files;
* :mod:`pairs`, :mod:`store`, :mod:`serving`, :mod:`hsts`: certificates and keys, where they are installed, what nginx
  serves, and the HSTS header;
* :mod:`config`, :mod:`state`, :mod:`result`, :mod:`commands`: input, memory, output, and other programs.

The role certbot installs the modules of this folder, without subfolders, and the modules of
``plugins/module_utils/flaskhost/host`` that they import.
"""
