/* The sum of a sequence of numbers. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

static PyObject *total(PyObject *self, PyObject *numbers)
{
    PyObject *items = PySequence_Fast(numbers, "total() needs a sequence");
    double sum = 0;

    if (items == NULL)
        return NULL;
    for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(items); i++) {
        sum += PyFloat_AsDouble(PySequence_Fast_GET_ITEM(items, i));
        if (PyErr_Occurred()) {
            Py_DECREF(items);
            return NULL;
        }
    }
    Py_DECREF(items);
    return PyFloat_FromDouble(sum);
}

static PyMethodDef methods[] = {
    {"total", total, METH_O, "Add the numbers of a sequence."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "fastsum", "Sums.", -1, methods,
};

PyMODINIT_FUNC PyInit_fastsum(void)
{
    return PyModule_Create(&module);
}
